"""How nodes, and ranks that change their group in process, meet at the coordinator and each other."""
