"""Ranks that go on in the same process when their group changes (``student.resize: live``)."""
