"""The host side of training: starts the ranks of a run on this node and watches them. It never imports torch itself."""
