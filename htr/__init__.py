"""The parts of the handwriting reader that know neither its settings nor its network.

Nothing here imports the modules at the top of the repository; what a part needs of a setting is passed in.
"""
