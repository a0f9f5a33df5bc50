"""Launch a job: ``python run_mindformer.py --config configs/tiny/predict_llama_tiny.yaml --predict_data "def "``."""
import sys

from mindformers.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
