"""The command line, the coordinator and the runtimes that put the roles into processes."""
