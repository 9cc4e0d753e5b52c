"""What shifts, scale and rotation do to a model of the user on images of the user, and which stride causes it."""
