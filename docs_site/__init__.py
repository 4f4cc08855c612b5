"""The documentation as a site: `make docs`. Pages are written in docs/; this folder has what makes a site of them."""
