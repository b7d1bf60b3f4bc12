"""Models of the user's own beside what a study found: read, judged on images, compared."""
