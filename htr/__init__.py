"""The parts of the handwriting reader that know neither its settings nor its network, in the order of the data.

    system -> pictures -> texts -> decoding -> results

A group imports only itself and groups to its left. Nothing here imports the modules at the top of the repository; what
a part needs of a setting is passed in.
"""
