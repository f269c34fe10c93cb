"""The processes of a service: the one that supervises, and the replica that holds an engine."""
