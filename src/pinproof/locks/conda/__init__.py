"""Conda environments: specifications of envs/, locks of lockfiles/, what installs them."""
