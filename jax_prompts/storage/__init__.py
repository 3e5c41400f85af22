"""Files and directories, here or at URLs: read up to a limit, written whole or not at all."""
