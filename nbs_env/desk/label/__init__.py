"""A page for marking defects, in a browser, on the own machine: `nbs label --images FOLDER`."""
