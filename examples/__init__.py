"""Jobs to run and to copy from; not part of the installed package."""
