"""How the processes of a run begin: they meet, and compare what decides the result."""
