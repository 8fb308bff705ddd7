"""`make gpu`: what one GPU computes is checked, and its speed and memory are measured, in at most nine minutes."""
