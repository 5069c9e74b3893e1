/* In place of CUDA's header where comm/nccl/nccl.cpp is compiled for the simulated NCCL: the one type that it names. */
#pragma once

typedef struct CUstream_st* cudaStream_t;
