"""Convolutions of our own in C++, behind a C interface: optional, without torch; `build` compiles them."""
