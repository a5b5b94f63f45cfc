"""What a loop carries from one iteration to the next, and what one iteration may change."""
