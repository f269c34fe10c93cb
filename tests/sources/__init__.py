"""Trees of files as nobody should make them, and what a build of data makes of them."""
