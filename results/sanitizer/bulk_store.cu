// Correct bulk stores, to learn whether initcheck sees what they write.
//
// Each block fills a tile in shared memory; one thread stores it to fresh global memory with cp.async.bulk and waits for its
// end. A second kernel reads every element, two bytes at a time, and counts the wrong ones. PTX ISA, "Data Movement and
// Conversion Instructions": cp.async.bulk, cp.async.bulk.tensor (parts of a box beyond the tensor are not written),
// cp.async.bulk.wait_group (without .read the writes are made), and fence.proxy.async before it. Nothing is left unwritten,
// so a hazard that initcheck reports is a misreading.
//
//   -DTENSOR  stores by a tensor map in two dimensions; the last box is clipped at the edge
//   -DPLAIN   stores with plain instructions instead: the control, clean
//   -DHOLE    leaves the second tile unwritten, whichever way the others go: a real hazard, that initcheck must find
//
//   nvcc -arch=sm_90a -lineinfo -o bulk_store bulk_store.cu && compute-sanitizer --tool initcheck ./bulk_store
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

// As in an answer of attention: 113 rows are no multiple of the tile.
constexpr int ROWS = 113, COLUMNS = 64, TILE = 32, TILES = (ROWS + TILE - 1) / TILE;

__device__ uint16_t wanted(int i) { return static_cast<uint16_t>(i % 65521 + 1); }

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void finish() {
  asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
}

__global__ void store(const __grid_constant__ CUtensorMap map, uint16_t* out) {
  __shared__ alignas(128) uint16_t tile[TILE * COLUMNS];
  int first = blockIdx.x * TILE, rows = min(TILE, ROWS - first);
  for (int i = threadIdx.x; i < TILE * COLUMNS; i += blockDim.x) tile[i] = wanted(first * COLUMNS + i);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
#ifdef HOLE
  if (blockIdx.x == 1) return;
#endif
#if defined(PLAIN)
  for (int i = threadIdx.x; i < rows * COLUMNS; i += blockDim.x) out[first * COLUMNS + i] = tile[i];
#elif defined(TENSOR)
  if (threadIdx.x == 0) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(0),
                 "r"(first), "r"(shared_address(tile))
                 : "memory");
    finish();
  }
#else
  if (threadIdx.x == 0) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(
                     __cvta_generic_to_global(out + first * COLUMNS)),
                 "r"(shared_address(tile)), "r"(static_cast<uint32_t>(rows * COLUMNS * sizeof(uint16_t)))
                 : "memory");
    finish();
  }
#endif
}

__global__ void count_wrong(const uint16_t* out, int* wrong) {
  for (int i = threadIdx.x; i < ROWS * COLUMNS; i += blockDim.x)
    if (out[i] != wanted(i)) atomicAdd(wrong, 1);
}

CUtensorMap tensor_map(uint16_t* out) {
  CUtensorMap map{};
#ifdef TENSOR
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found;
  cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found);
  cuuint64_t sizes[] = {COLUMNS, ROWS}, strides[] = {COLUMNS * sizeof(uint16_t)};
  cuuint32_t box[] = {COLUMNS, TILE}, steps[] = {1, 1};
  CUresult said = encode ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
                               &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, out, sizes, strides, box, steps,
                               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                               CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
                         : CUDA_ERROR_NOT_FOUND;
  if (said != CUDA_SUCCESS) printf("no tensor map: error %d\n", static_cast<int>(said));
#endif
  return map;
}

int main() {
  uint16_t* out;
  int *wrong, count = -1;
  cudaMalloc(&out, ROWS * COLUMNS * sizeof(uint16_t));
  cudaMalloc(&wrong, sizeof(int));
  cudaMemset(wrong, 0, sizeof(int));
  store<<<TILES, 128>>>(tensor_map(out), out);
  count_wrong<<<1, 128>>>(out, wrong);
  cudaError_t error = cudaMemcpy(&count, wrong, sizeof(int), cudaMemcpyDeviceToHost);
  printf("%s, %d of %d elements wrong\n", cudaGetErrorString(error), count, ROWS * COLUMNS);
  return error != cudaSuccess || count != 0;
}
