"""Who is here: members that come, report and go, as the coordinator sees them. Pure."""
