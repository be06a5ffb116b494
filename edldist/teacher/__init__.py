"""The teacher worker: one process, one device, one copy of a teacher."""
