"""The command line: `mindformers run|chat|convert|check|ls`, and what run_mindformer.py does."""
