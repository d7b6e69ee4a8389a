"""`python -m comfymodal` is the console script."""

from comfymodal.cli.main import main

if __name__ == "__main__":
    main()
