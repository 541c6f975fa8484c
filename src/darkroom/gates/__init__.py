"""Gates: what a generated caption must be. One file for each kind; `gates.table` names them."""
