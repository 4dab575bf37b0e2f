"""The sn17 command: run, look into and steer a 3D-generation miner."""
