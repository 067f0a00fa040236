"""The documentation; a package only so that pytest tells its conftest from that of the tests."""
