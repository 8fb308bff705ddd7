"""Python imports this at its start wherever tests/conftest.py has put this folder on PYTHONPATH: in all child processes."""

import no_network

no_network.install()
