"""The protocol of a run as a model: the production code, with chance, time and the store in a seed's hands."""
