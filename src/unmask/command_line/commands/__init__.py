"""What the command line does: in each module, ``run`` returns a report and ``render`` prints it."""
