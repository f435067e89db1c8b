"""Where do published data come from, and where are they kept?"""
