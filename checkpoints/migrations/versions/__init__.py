"""One file a version. Before deploying: what is safe. After: what may be dropped."""
