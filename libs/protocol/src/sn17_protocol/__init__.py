"""Wire format and signatures of Bittensor subnet 17."""
