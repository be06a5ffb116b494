"""Images, online and served: one teacher in the student's process, against workers that come and go."""
