"""What a person may type: one typed function a command, its help and its complaints. Needs no torch.

The work is done in `unmask.command_line.commands`, which is imported when a command runs, so help stays quick.
"""
