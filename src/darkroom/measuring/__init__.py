"""`darkroom measure`: metrics on any folder of pictures, whoever made them."""
