"""`mailsec demo`: the main job, end to end, on real sockets, in a directory of its own."""
