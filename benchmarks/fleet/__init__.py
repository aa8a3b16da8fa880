"""`make bench-fleet`: what a run of site.yml costs, by the number of hosts."""
