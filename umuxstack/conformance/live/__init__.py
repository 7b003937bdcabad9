"""Scripts against a kernel across a TUN, in real time: another stack behind the runner's interface."""
