batch_size = 6
block_size = 8
n_embd = 16
max_iters = 30
eval_interval = 10
