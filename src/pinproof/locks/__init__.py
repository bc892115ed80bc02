"""From a request to exact files: indexes, git, hashes, wheelhouses."""
