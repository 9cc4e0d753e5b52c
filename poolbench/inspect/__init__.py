"""Pictures of what pools and networks see."""
