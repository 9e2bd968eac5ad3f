"""How the job reaches the place where it runs."""
