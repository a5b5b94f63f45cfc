"""The functions and loops of a program, and which function may call which."""
