"""The command line: `mindformers run|chat|convert|check|ls|kernels`, and what run_mindformer.py does."""
