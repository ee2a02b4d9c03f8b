"""Reading with the nodes of a Ray cluster: the only door to ``ray``, opened by ``connect``."""
