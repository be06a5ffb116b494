"""What labels are: how they are packed for the wire and unpacked for the loop, and whose they are."""
