"""A page for marking defects, in a browser, on the own machine: `python -m nbs_env.label --images FOLDER`."""
