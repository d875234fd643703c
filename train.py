"""Train a sampler and a detector: `python train.py --agent reinforce`; `--help` lists the settings."""

from agents.run import main

if __name__ == "__main__":
    main()
