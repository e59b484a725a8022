"""The worker: a process that runs attempts. Imports nothing here: the guard and the pool's processes must stay small."""
