"""Messages, tensors and sockets between the processes of a job. Nothing here executes what it reads."""
